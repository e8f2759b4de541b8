"""Files that several processes or machines look at: written so that nobody sees a part, and held by one at a time.

What is in them is decided elsewhere. Everything here blocks, and may hang where the file system does.
"""

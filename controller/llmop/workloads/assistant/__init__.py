"""Assistants: a model that answers from passages of documents, behind the name of a model.

`prompts` says what the model is asked, `answers` what the client gets, `routes` does it.
"""

"""The agent as a real process against a stand-in controller over real HTTPS, with real engines below it."""

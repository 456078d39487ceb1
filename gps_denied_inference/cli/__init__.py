"""The command line ``gdi``: ``main.py`` holds the table of commands, one module each."""

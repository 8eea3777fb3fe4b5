"""The screens of `tcprism top`. Only the command imports them, when it is used: they need Textual."""

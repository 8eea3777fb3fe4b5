"""The screens of `tcprism top`. They need Textual: the command imports them when it is used."""

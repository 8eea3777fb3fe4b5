"""Tests of the protocols' parsers."""

"""Helpers for the notebooks of *NLA, reproduced*: data, losses, training and tables, one job a module."""

"""Ours beside other libraries, each in a virtual environment of its own and through its own public interface."""

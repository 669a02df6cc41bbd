"""Running a slice: llama.cpp in a child process, and the parent's handle on it."""

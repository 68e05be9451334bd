"""Who has the memory: bytes traced to the byte, the framework's tensors by what they are for, and the process."""

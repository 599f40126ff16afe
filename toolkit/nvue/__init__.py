"""NVUE, the REST interface of an NVLink switch tray's operating system (NVOS): state read, a few settings changed."""

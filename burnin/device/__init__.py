"""The vendor's libraries, each behind one guarded door: NVML by pynvml, CUDA's driver API by ctypes."""

from tests.kubernetes.plane import api, control_plane

__all__ = ["api", "control_plane"]

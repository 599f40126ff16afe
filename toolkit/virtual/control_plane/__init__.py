"""A real Kubernetes control plane of one machine: etcd, kube-apiserver, kube-controller-manager, kube-scheduler."""

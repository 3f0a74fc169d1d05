"""Where the roles of d to g run as pods: `KubernetesCluster` follows one run through kubectl."""

from studyguide.kubernetes.watcher import KubernetesCluster

__all__ = ["KubernetesCluster"]

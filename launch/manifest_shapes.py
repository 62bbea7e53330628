"""The exact shapes of the manifests in launch/templates/, written from the APIs and not from the templates."""

import re
from typing import Any

from launch.tpu_types import GENERATIONS

NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
COUNT = re.compile(r"[1-9][0-9]*")
IMAGE = re.compile(r"[^\s@]+(:(?!latest$)\w[\w.-]*|@sha256:[0-9a-f]{64})")
TOPOLOGIES = tuple(sorted({shape for kind in GENERATIONS.values() for shape in kind.topologies}))
Shape = dict[str, Any]


def pod(container: str, resources: Shape, more: Shape, container_more: Shape, env: tuple[str, ...]) -> Shape:
    """A pod template with one container."""
    entry = {"name": env, "value": str}
    main = {"name": (container,), "image": IMAGE, "env": [entry], **container_more}
    main["resources"] = {"requests": resources, "limits": resources}
    return {"spec": {"serviceAccountName": NAME, "containers": [main], **more}}


TPU = {"google.com/tpu": COUNT}
ON_TPU: Shape = {
    "terminationGracePeriodSeconds": int,
    "nodeSelector": {
        "cloud.google.com/gke-tpu-accelerator": tuple(kind.gke for kind in GENERATIONS.values()),
        "cloud.google.com/gke-tpu-topology": TOPOLOGIES,
        "cloud.google.com/gke-spot?": ("true",),
    },
    "tolerations?": [
        {
            "key": ("cloud.google.com/gke-spot",),
            "operator": ("Equal",),
            "value": ("true",),
            "effect": ("NoSchedule",),
        }
    ],
}
METADATA: Shape = {
    "name": NAME,
    "namespace": NAME,
    "labels": {"app.kubernetes.io/name": ("npu-squeeze",)},
}
JOBSET: Shape = {
    "apiVersion": ("jobset.x-k8s.io/v1alpha2",),
    "kind": ("JobSet",),
    "metadata": {
        **METADATA,
        "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": ("cloud.google.com/gke-nodepool",)},
    },
    "spec": {
        "ttlSecondsAfterFinished": int,
        "failurePolicy": {
            "maxRestarts": int,
            "rules": [
                {
                    "name": re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"),
                    "action": ("FailJobSet",),
                    "onJobFailureReasons": [("PodFailurePolicy",)],
                }
            ],
        },
        "replicatedJobs": [
            {
                "name": NAME,
                "replicas": (1,),
                "template": {
                    "spec": {
                        "completionMode": ("Indexed",),
                        "completions": int,
                        "parallelism": int,
                        "backoffLimit": int,
                        "activeDeadlineSeconds": int,
                        "podFailurePolicy": {
                            "rules": [
                                {
                                    "action": ("FailJob",),
                                    "onExitCodes": {
                                        "containerName": ("main",),
                                        "operator": ("In",),
                                        "values": [int],
                                    },
                                }
                            ]
                        },
                        "template": pod(
                            "main",
                            TPU,
                            # A pod failure policy needs pods that are never restarted in place.
                            {**ON_TPU, "restartPolicy": ("Never",)},
                            {"command": [str]},
                            ("JAX_PLATFORMS",),
                        ),
                    }
                },
            }
        ],
    },
}
_RAY_ENV = ("RAY_USAGE_STATS_ENABLED",)
_HEAD = {"cpu": COUNT, "memory": re.compile(r"[1-9][0-9]*[GM]i")}
RAYJOB: Shape = {
    "apiVersion": ("ray.io/v1",),
    "kind": ("RayJob",),
    "metadata": METADATA,
    "spec": {
        "entrypoint": str,
        "submissionMode": ("K8sJobMode",),
        "shutdownAfterJobFinishes": (True,),
        "ttlSecondsAfterFinished": int,
        "activeDeadlineSeconds": int,
        "backoffLimit": int,
        "rayClusterSpec": {
            "rayVersion": re.compile(r"\d+\.\d+\.\d+"),
            "headGroupSpec": {
                "rayStartParams": {"num-cpus": ("0",), "dashboard-host": ("0.0.0.0",)},
                "template": pod("ray-head", _HEAD, {}, {}, _RAY_ENV),
            },
            "workerGroupSpecs": [
                {
                    "groupName": NAME,
                    "replicas": int,
                    "minReplicas": int,
                    "maxReplicas": int,
                    "numOfHosts": int,
                    "rayStartParams": {},
                    "template": pod("ray-worker", TPU, ON_TPU, {}, _RAY_ENV),
                }
            ],
        },
    },
}
SHAPES = {"jobset": JOBSET, "rayjob": RAYJOB}

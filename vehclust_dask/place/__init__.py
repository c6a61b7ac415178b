"""Places: where a job is computed. A YAML file becomes a Dask cluster and a client."""

from vehclust_dask.place.address import AddressPlace, check_address, scheduler_place
from vehclust_dask.place.kinds import KINDS, Place, load_place, open_place, place_from, show_place
from vehclust_dask.place.kubernetes import KubernetesPlace
from vehclust_dask.place.local import LocalPlace, free_port, local_size
from vehclust_dask.place.opened import (
    WORKER_BASE_BYTES,
    OpenPlace,
    cache_bytes,
    tunnel_line,
)
from vehclust_dask.place.slurm import SlurmPlace
from vehclust_dask.place.ssh import SshPlace

__all__ = [
    "KINDS",
    "WORKER_BASE_BYTES",
    "AddressPlace",
    "KubernetesPlace",
    "LocalPlace",
    "OpenPlace",
    "Place",
    "SlurmPlace",
    "SshPlace",
    "cache_bytes",
    "check_address",
    "free_port",
    "load_place",
    "local_size",
    "open_place",
    "place_from",
    "scheduler_place",
    "show_place",
    "tunnel_line",
]

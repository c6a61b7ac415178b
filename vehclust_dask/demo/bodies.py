"""Bodies of the ten vehicle types: side profiles in metres that are extruded across the width."""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Body:
    """One body: x runs from the nose to the tail, z upwards from the road.

    Attributes
    ----------
    profile : tuple of (x, z)
        Outline of the side from the lower front over the roof to the lower rear.
    roles : tuple of str
        What each edge of the profile is, in order.
    width, belt, taper : float
        Full width; above the belt's height the body narrows to ``taper`` of it at the roof.
    windows : tuple of polygons
        Side windows, in the plane of the side.
    wheels : tuple of float
        x of the axles.
    radius : float
        Of a wheel.
    extras : frozenset of str
        Further things to draw.
    cargo : Body or None
        A second body behind this one.
    """

    profile: tuple[Point, ...]
    roles: tuple[str, ...]
    width: float
    belt: float
    taper: float
    windows: tuple[tuple[Point, ...], ...]
    wheels: tuple[float, ...]
    radius: float = 0.32
    extras: frozenset[str] = frozenset()
    cargo: Body | None = None

    @property
    def length(self) -> float:
        """Return the length in metres, the cargo included."""
        own = max(x for x, _ in self.profile)
        return max(own, self.cargo.length) if self.cargo else own

    @property
    def height(self) -> float:
        """Return the height of the profile in metres."""
        return max(z for _, z in self.profile)


_CAR_ROLES = ("bumper", "front", "hood", "screen", "roof", "rearglass", "boot", "rear", "bumper")
_BOX_ROLES = ("bumper", "front", "hood", "screen", "roof", "rearglass", "rear", "bumper")


def _sedan(extras: frozenset[str] = frozenset()) -> Body:
    return Body(
        profile=(
            (0.0, 0.25),
            (0.0, 0.5),
            (0.1, 0.74),
            (1.25, 0.95),
            (2.05, 1.43),
            (3.2, 1.43),
            (3.85, 1.06),
            (4.5, 1.0),
            (4.6, 0.55),
            (4.6, 0.25),
        ),
        roles=_CAR_ROLES,
        width=1.85,
        belt=0.95,
        taper=0.72,
        windows=(
            ((1.5, 1.0), (2.1, 1.36), (2.5, 1.36), (2.5, 1.0)),
            ((2.6, 1.0), (2.6, 1.36), (3.15, 1.36), (3.62, 1.07), (3.55, 1.0)),
        ),
        wheels=(0.85, 3.7),
        extras=extras,
    )


_HATCHBACK = Body(
    profile=(
        (0.0, 0.25),
        (0.0, 0.52),
        (0.08, 0.8),
        (0.85, 1.0),
        (1.65, 1.52),
        (3.1, 1.5),
        (3.6, 1.0),
        (3.7, 0.55),
        (3.7, 0.25),
    ),
    roles=_BOX_ROLES,
    width=1.72,
    belt=0.95,
    taper=0.76,
    windows=(
        ((1.15, 1.03), (1.7, 1.43), (2.15, 1.44), (2.15, 1.03)),
        ((2.25, 1.03), (2.25, 1.44), (2.95, 1.43), (3.2, 1.12), (3.0, 1.03)),
    ),
    wheels=(0.7, 3.05),
)
_SUV = Body(
    profile=(
        (0.0, 0.4),
        (0.0, 0.7),
        (0.08, 1.04),
        (1.15, 1.18),
        (1.75, 1.76),
        (4.1, 1.74),
        (4.45, 1.15),
        (4.55, 0.7),
        (4.55, 0.4),
    ),
    roles=_BOX_ROLES,
    width=1.95,
    belt=1.12,
    taper=0.84,
    windows=(
        ((1.45, 1.22), (1.85, 1.66), (2.45, 1.67), (2.45, 1.22)),
        ((2.57, 1.22), (2.57, 1.67), (3.3, 1.66), (3.3, 1.22)),
        ((3.42, 1.22), (3.42, 1.66), (3.95, 1.64), (4.15, 1.26), (4.1, 1.22)),
    ),
    wheels=(0.9, 3.65),
    radius=0.4,
    extras=frozenset({"rails", "cladding"}),
)
_MINIVAN = Body(
    profile=(
        (0.0, 0.3),
        (0.0, 0.6),
        (0.1, 0.86),
        (0.7, 1.08),
        (1.75, 1.8),
        (4.45, 1.84),
        (4.7, 1.15),
        (4.75, 0.65),
        (4.75, 0.3),
    ),
    roles=_BOX_ROLES,
    width=1.88,
    belt=1.05,
    taper=0.86,
    windows=(
        ((0.95, 1.12), (1.5, 1.52), (1.5, 1.12)),
        ((1.6, 1.12), (1.6, 1.58), (1.85, 1.7), (2.4, 1.72), (2.4, 1.12)),
        ((2.5, 1.12), (2.5, 1.72), (3.4, 1.74), (3.4, 1.12)),
        ((3.5, 1.12), (3.5, 1.74), (4.25, 1.74), (4.45, 1.2), (4.4, 1.12)),
    ),
    wheels=(0.8, 3.85),
    radius=0.34,
)
_VAN = Body(
    profile=(
        (0.0, 0.35),
        (0.0, 0.65),
        (0.08, 1.05),
        (0.6, 1.3),
        (1.3, 2.2),
        (5.0, 2.3),
        (5.05, 1.4),
        (5.05, 0.65),
        (5.05, 0.35),
    ),
    roles=("bumper", "front", "hood", "screen", "roof", "doors", "rear", "bumper"),
    width=2.0,
    belt=1.3,
    taper=0.93,
    windows=(((0.95, 1.38), (1.4, 2.0), (2.0, 2.02), (2.0, 1.38)),),
    wheels=(0.9, 4.0),
    radius=0.36,
    extras=frozenset({"panels"}),
)
_PICKUP = Body(
    profile=(
        (0.0, 0.5),
        (0.0, 0.78),
        (0.06, 1.14),
        (1.3, 1.22),
        (1.85, 1.8),
        (3.1, 1.8),
        (3.3, 1.2),
        (5.2, 1.2),
        (5.25, 0.75),
        (5.25, 0.5),
    ),
    roles=("bumper", "front", "hood", "screen", "roof", "cabglass", "bed", "rear", "bumper"),
    width=1.95,
    belt=1.2,
    taper=0.84,
    windows=(
        ((1.55, 1.26), (1.92, 1.7), (2.4, 1.7), (2.4, 1.26)),
        ((2.5, 1.26), (2.5, 1.7), (3.0, 1.7), (3.12, 1.26)),
    ),
    wheels=(0.95, 4.2),
    radius=0.42,
    extras=frozenset({"cladding"}),
)
_CARGO = Body(
    profile=((1.75, 0.85), (1.75, 3.0), (5.9, 3.0), (5.9, 0.85)),
    roles=("wall", "roof", "cargodoors"),
    width=2.3,
    belt=3.0,
    taper=1.0,
    windows=(),
    wheels=(),
    extras=frozenset({"ribs"}),
)
_TRUCK = Body(
    profile=(
        (0.0, 0.4),
        (0.0, 0.75),
        (0.0, 1.3),
        (0.05, 1.4),
        (0.3, 2.3),
        (1.6, 2.35),
        (1.65, 0.4),
    ),
    roles=("bumper", "front", "hood", "screen", "roof", "wall"),
    width=2.1,
    belt=1.4,
    taper=0.94,
    windows=(((0.3, 1.5), (0.5, 2.15), (1.2, 2.15), (1.2, 1.5)),),
    wheels=(0.8, 4.6),
    radius=0.45,
    extras=frozenset({"tailbar"}),
    cargo=_CARGO,
)
_BUS = Body(
    profile=(
        (0.0, 0.35),
        (0.0, 0.6),
        (0.0, 1.15),
        (0.05, 1.2),
        (0.15, 2.5),
        (0.2, 3.0),
        (8.4, 3.0),
        (8.45, 1.7),
        (8.5, 0.6),
        (8.5, 0.35),
    ),
    roles=("bumper", "front", "hood", "screen", "board", "roof", "rearglass", "rear", "bumper"),
    width=2.5,
    belt=1.2,
    taper=0.97,
    windows=(
        ((0.35, 0.6), (0.35, 2.45), (1.15, 2.45), (1.15, 0.6)),
        *(
            ((x, 1.4), (x, 2.45), (x + 1.25, 2.45), (x + 1.25, 1.4))
            for x in (1.35, 2.72, 4.09, 5.46, 6.83)
        ),
    ),
    wheels=(1.95, 6.4),
    radius=0.48,
    extras=frozenset({"stripe"}),
)
_SPORTS = Body(
    profile=(
        (0.0, 0.18),
        (0.0, 0.34),
        (0.25, 0.6),
        (1.55, 0.78),
        (2.3, 1.14),
        (2.95, 1.14),
        (3.9, 0.84),
        (4.3, 0.8),
        (4.35, 0.45),
        (4.35, 0.18),
    ),
    roles=_CAR_ROLES,
    width=2.0,
    belt=0.72,
    taper=0.6,
    windows=(((1.85, 0.82), (2.35, 1.08), (2.9, 1.08), (3.35, 0.88), (3.2, 0.82)),),
    wheels=(0.85, 3.55),
    radius=0.33,
    extras=frozenset({"wing"}),
)

#: One body per type, in the order of ``latent.TYPES``.
BODIES: dict[str, Body] = {
    "sedan": _sedan(),
    "hatchback": _HATCHBACK,
    "suv": _SUV,
    "minivan": _MINIVAN,
    "van": _VAN,
    "pickup": _PICKUP,
    "truck": _TRUCK,
    "bus": _BUS,
    "taxi": _sedan(frozenset({"sign", "checker"})),
    "sports": _SPORTS,
}

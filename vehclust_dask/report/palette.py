"""Colours of clusters and of everything around them."""

from __future__ import annotations

# fmt: off
#: Well apart from each other in every leading part (OKLab, also as seen by a deuteranope): the
#: first 13 are chosen by eye, each later one lies farthest from all before it, the grey of the
#: noise and white paper. About 20 can be told apart with ease, 50 side by side.
PALETTE = (
    "#236cc5", "#e9842d", "#40a161", "#d14244", "#9060c6", "#37b4c5", "#7e482c", "#f08cba",
    "#baa02c", "#263b69", "#94c34d", "#7c2252", "#215c5a", "#3511a3", "#b83d8e", "#cb74fc",
    "#e1b5fc", "#384302", "#2deca0", "#703e8c", "#febc39", "#706cf8", "#a25058", "#c5a282",
    "#ba7d98", "#5992b9", "#ac3c08", "#ada6f2", "#75139f", "#1848c7", "#64679d", "#f5b3cf",
    "#bb7b10", "#d4cd77", "#4b3251", "#a5067a", "#481f83", "#448be7", "#86a75c", "#612835",
    "#80026e", "#d33177", "#2c6d4e", "#978fd9", "#0fd2da", "#962cac", "#2c60e1", "#2ebb92",
    "#624402", "#404183",
)
# fmt: on

#: Rows of no cluster (label -1).
NOISE = "#b9bec6"

PAPER = "#ffffff"
INK = "#1b2028"
MUTED = "#69717d"
RULE = "#dfe3e8"
TILE = "#eef0f3"
EMPTY_TILE = "#d3d8de"
MARK = "#a8500f"


def color(cluster: int) -> str:
    """Return the colour of a cluster as ``#rrggbb``; grey for noise, repeating after 50."""
    return NOISE if cluster < 0 else PALETTE[cluster % len(PALETTE)]


def rgb(code: str) -> tuple[int, int, int]:
    """Split ``#rrggbb`` into three numbers from 0 to 255."""
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)

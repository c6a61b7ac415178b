"""What is published about the case's four descriptor sets, all 416,314 rows of each.

Shares of variance by at most 20 components are derived from scores. k-means is scikit-learn's on at
most 128 components, a scaler before the PCA; its Calinski-Harabasz grows in proportion to the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

ROWS = 416_314
SCALERS = ("standard", "minmax")
CLUSTERS = (5, 10, 30)
#: At most so many components were clustered, after a scaler and without one.
COMPONENTS, UNSCALED_COMPONENTS = 128, 20


@dataclass(frozen=True)
class Published:
    """Figures of one set.

    Attributes
    ----------
    values : tuple of float
        Smallest, mean and largest value.
    variance, standard_variance : dict of int to float
        Share of variance by number of components, of raw and of standardised columns.
    scores : dict of (str, int) to (float, float)
        Calinski-Harabasz and Davies-Bouldin by scaler and number of clusters.
    unscaled_scores : dict of int to float
        Calinski-Harabasz by number of clusters, raw columns.
    """

    values: tuple[float, float, float]
    variance: dict[int, float]
    standard_variance: dict[int, float]
    scores: dict[tuple[str, int], tuple[float, float]]
    unscaled_scores: dict[int, float]


# fmt: off
PUBLISHED = {
    "efficientnet-b7": Published(
        values=(-0.265, 0.041, 2.02),
        variance={
            5: 0.151, 6: 0.16, 7: 0.167, 8: 0.174, 9: 0.181, 10: 0.187, 11: 0.193, 12: 0.198,
            13: 0.204, 14: 0.209, 15: 0.214, 16: 0.219, 17: 0.223, 18: 0.228, 19: 0.232,
            20: 0.237, 76: 0.41, 113: 0.49, 148: 0.551, 191: 0.614, 242: 0.675, 280: 0.711,
            374: 0.771, 448: 0.792, 808: 0.849, 1180: 0.892,
        },
        standard_variance={200: 0.627, 1536: 0.924, 2048: 0.966},
        scores={
            ("standard", 5): (20476.2, 4.2598),
            ("standard", 10): (11345.4, 4.3608),
            ("standard", 30): (4532.6, 4.4721),
            ("minmax", 5): (20408.5, 4.2447),
            ("minmax", 10): (11314.5, 4.3568),
            ("minmax", 30): (4515.9, 4.5415),
        },
        unscaled_scores={2: 128073.27, 3: 91787.22, 4: 70335.68},
    ),
    "osnet": Published(
        values=(0.0, 0.887, 33.502),
        variance={
            5: 0.409, 6: 0.45, 7: 0.481, 8: 0.506, 9: 0.531, 10: 0.552, 11: 0.571, 12: 0.588,
            13: 0.604, 14: 0.619, 15: 0.633, 16: 0.645, 17: 0.657, 18: 0.668, 19: 0.678,
            20: 0.688, 24: 0.722, 25: 0.73, 31: 0.769, 46: 0.831, 66: 0.879, 97: 0.92, 117: 0.935,
            152: 0.952, 175: 0.96, 213: 0.97,
        },
        standard_variance={153: 0.9},
        scores={
            ("standard", 5): (25176.1, 2.9404),
            ("standard", 10): (17325.8, 2.6958),
            ("standard", 30): (9223.5, 2.6194),
            ("minmax", 5): (32412.3, 2.793),
            ("minmax", 10): (21618.4, 2.7709),
            ("minmax", 30): (10410.9, 2.8214),
        },
        unscaled_scores={2: 93391.83, 3: 65831.12, 4: 58656.28},
    ),
    "vdc_color": Published(
        values=(-3.772, -0.414, 2.152),
        variance={
            5: 0.658, 6: 0.674, 7: 0.688, 8: 0.699, 9: 0.709, 10: 0.718, 11: 0.725, 12: 0.732,
            13: 0.738, 14: 0.744, 15: 0.75, 16: 0.755, 17: 0.76, 18: 0.765, 19: 0.769, 20: 0.774,
            22: 0.782, 23: 0.786, 24: 0.79, 25: 0.794, 27: 0.801, 28: 0.804, 31: 0.814, 37: 0.832,
            61: 0.89,
        },
        standard_variance={4: 0.5, 12: 0.63, 69: 0.902},
        scores={
            ("standard", 5): (53756.9, 2.3523),
            ("standard", 10): (31005.2, 2.7758),
            ("standard", 30): (13616.5, 2.8909),
            ("minmax", 5): (69147.3, 2.3052),
            ("minmax", 10): (39331.4, 2.6126),
            ("minmax", 30): (16676.5, 2.8961),
        },
        unscaled_scores={2: 298609.82, 3: 223397.87, 4: 193324.29},
    ),
    "vdc_type": Published(
        values=(0.0, 0.138, 2.568),
        variance={
            5: 0.741, 6: 0.787, 7: 0.81, 8: 0.83, 9: 0.845, 10: 0.858, 11: 0.87, 12: 0.88,
            13: 0.888, 14: 0.896, 15: 0.901, 16: 0.907, 17: 0.912, 18: 0.916, 19: 0.92, 20: 0.924,
            122: 0.986, 123: 0.987, 126: 0.987, 127: 0.987, 136: 0.988, 146: 0.989, 154: 0.99,
            158: 0.99, 166: 0.991, 167: 0.991, 229: 0.995, 231: 0.995, 245: 0.995, 251: 0.996,
            254: 0.996, 255: 0.996,
        },
        standard_variance={1: 0.34, 2: 0.63, 20: 0.901},
        scores={
            ("standard", 5): (94663.9, 1.6193),
            ("standard", 10): (66469.1, 1.7161),
            ("standard", 30): (32773.7, 1.9953),
            ("minmax", 5): (107466.0, 1.8056),
            ("minmax", 10): (69215.8, 1.8647),
            ("minmax", 30): (32836.3, 2.0115),
        },
        unscaled_scores={2: 191718.54, 3: 161737.99, 4: 141646.89},
    ),
}
# fmt: on

"""How the phantom's tissues look: intensities, details and edges, before anything varies."""

NOISE = 9.0
"""Standard deviation of the noise."""

EDGE = 1.7
"""Width of an edge in mm where pixels are not larger."""

LEVELS = {
    "air": 6,
    "lung": 45,
    "fat": 365,
    "visceral_fat": 345,
    "muscle": 215,
    "bone": 245,
    "cortical": 110,
    "disc": 430,
    "csf": 900,
    "cord": 420,
    "heart": 290,
    "aorta": 90,
    "cava": 330,
    "gallbladder": 860,
    "pelvis": 700,
    "capsule": 150,
    "wall": 215,
    "fluid": 740,
    "food": 340,
    "gas": 50,
    "liver": 275,
    "portal_vein": 440,
    "hepatic_vein": 130,
    "cortex": 455,
    "medulla": 570,
    "spleen": 520,
}
"""Mean intensities. Their order is that of T2-weighted scans whose fat is partly suppressed."""

CONTENTS = {
    "food": 0.3,
    "liver": 0.22,
    "cortex": 0.14,
    "spleen": 0.14,
    "fluid": 0.12,
    "gas": 0.08,
}
"""What fills a loop of bowel and how often. Levels of organs are among it on purpose."""

TEXTURES = {
    "fine": (8, 3.6, 3.6),
    "medium": (10, 9, 9),
    "coarse": (26, 26, 26),
}
"""Details of tissues: their size along (z, y, x) in mm."""

"""The 21-joint hand: names, parents, finger groups, bone lengths and bend limits.

Joint order is FreiHAND's: the wrist, then thumb, index, middle, ring and little finger from the
base to the tip. Finger `f` therefore owns joints 1 + 4 f ... 4 + 4 f, and bone `j - 1` ends in joint `j`.
"""

FINGERS: tuple[str, ...] = ("thumb", "index", "middle", "ring", "little")

JOINTS: tuple[str, ...] = (
    "wrist",
    "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip",
    "index_mcp", "index_pip", "index_dip", "index_tip",
    "middle_mcp", "middle_pip", "middle_dip", "middle_tip",
    "ring_mcp", "ring_pip", "ring_dip", "ring_tip",
    "little_mcp", "little_pip", "little_dip", "little_tip",
)  # fmt: skip
"""Joint names, [21]."""

PARENTS: tuple[int, ...] = (-1, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19)
"""Parent of each joint, [21]; the wrist is the root and has none (-1)."""

GROUPS: tuple[tuple[int, ...], ...] = tuple(tuple(range(1 + 4 * f, 5 + 4 * f)) for f in range(5))
"""Joints of each finger from base to tip, [5][4]."""

BONE_MM: tuple[tuple[float, ...], ...] = (
    (38.0, 38.0, 32.0, 27.0),
    (90.0, 41.0, 24.0, 21.0),
    (88.0, 45.5, 28.0, 22.0),
    (82.0, 42.0, 27.0, 22.0),
    (78.0, 33.5, 19.0, 20.0),
)
"""Adult bone lengths in mm, [5][4]: wrist to base joint, then the three bones of the finger.

Rounded, close to the adult phalanx means of Buryanov & Kotiuk (2010), the last bone reaching to the
tip of the finger; palm and thumb base are set so that a middle finger and palm measure 18 cm.
"""

BENDS: tuple[str, ...] = ("base flexion", "base abduction", "middle flexion", "distal flexion")
"""The four angles of a finger. The thumb's are CMC flexion, CMC abduction, MCP and IP flexion."""

_FINGER_LIMITS_DEG = ((-25.0, 90.0), (-20.0, 20.0), (-5.0, 110.0), (-5.0, 80.0))

BEND_LIMITS_DEG: tuple[tuple[tuple[float, float], ...], ...] = (
    ((-20.0, 40.0), (-15.0, 45.0), (-10.0, 60.0), (-20.0, 80.0)),
    *(_FINGER_LIMITS_DEG,) * 4,
)
"""Smallest and largest angle in degrees, [5][4][2]. Positive flexion bends towards the palm;
positive abduction moves a finger to the thumb's side, and the thumb out of the palm's plane."""

DIP_PER_PIP: float = 0.62
"""Bend of the last finger joint for a degree of the one before it (they share a tendon)."""

"""The environments that are found by name, each with what it is in one line; `catalog` makes them."""

from __future__ import annotations

MPE2: dict[str, str] = {
    "simple_v3": "one agent goes to a landmark",
    "simple_adversary_v3": "agents hide their goal landmark from an adversary",
    "simple_crypto_v3": "alice sends bob a secret that eve must not read",
    "simple_push_v3": "an adversary keeps an agent from its landmark",
    "simple_reference_v3": "two agents tell each other where to go",
    "simple_speaker_listener_v4": "a speaker names the landmark that a listener must reach",
    "simple_spread_v3": "agents cover landmarks without colliding",
    "simple_tag_v3": "slow adversaries chase a fast agent",
    "simple_world_comm_v3": "a lead adversary directs the chase, with food and forests",
    "simple_formation_v1": "agents spread evenly on a circle around a landmark",
    "simple_line_v1": "agents spread evenly on a line between two landmarks",
    "collect_treasure_v1": "collectors bring treasures to the deposits of their colour",
}

PARTICLE: dict[str, str] = {name: f"{text}; batched on the device" for name, text in MPE2.items()}
"""Every task of mpe2 has a twin."""

PETTINGZOO: dict[str, dict[str, str]] = {
    "mpe2": MPE2,
    "sisl": {
        "multiwalker_v9": "three walkers carry a package over rough ground",
        "pursuit_v5": "pursuers surround evaders on a grid",
    },
    "butterfly": {
        "knights_archers_zombies_v11": "knights and archers hold zombies off, and die one by one",
        "cooperative_pong_v6": "two paddles keep a ball in play; pixels, which are not supported yet",
        "pistonball_v6": "pistons move a ball to the left; pixels, which are not supported yet",
    },
    "classic": {
        "chess_v6": "chess, in turns",
        "connect_four_v3": "four in a row, in turns",
        "go_v5": "go, in turns",
        "hanabi_v5": "players tell each other of cards that only the others see, in turns",
        "leduc_holdem_v4": "poker with six cards, in turns",
        "rps_v2": "rock, paper, scissors, at once",
        "texas_holdem_v4": "poker with limited raises, in turns",
        "texas_holdem_no_limit_v6": "poker with free raises, in turns",
        "tictactoe_v3": "noughts and crosses, in turns",
    },
    "magent2": {
        "adversarial_pursuit_v4": "slow predators tag fast prey",
        "battle_v4": "two armies fight",
        "battlefield_v5": "two armies of twelve fight among obstacles",
        "combined_arms_v6": "two armies of ranged and melee units fight",
        "gather_v5": "hundreds gather food; more agents than are supported yet",
        "tiger_deer_v4": "tigers hunt deer in pairs",
    },
}
"""PettingZoo's families. Each but mpe2 is an extra of this package, which brings what its environments need."""

VMAS: dict[str, str] = {
    "balance": "agents carry a package on a line up to a goal, against gravity",
    "ball_passage": "two agents push a ball through one of several passages",
    "ball_trajectory": "two agents keep a ball on a circle at a wanted speed",
    "buzz_wire": "two agents pull a ring along a winding corridor without touching it",
    "discovery": "agents with range sensors cover targets, several to each",
    "dispersion": "agents spread to eat food that is scattered around them",
    "dropout": "one agent suffices to reach the goal, and energy is to be saved",
    "flocking": "agents flock around a target among obstacles",
    "football": "a team plays football against a scripted or learning one",
    "give_way": "two agents swap sides of a corridor in which only one fits",
    "joint_passage": "two agents on a stick carry it through a passage",
    "joint_passage_size": "two agents of different size on a stick go through passages that fit them",
    "multi_give_way": "four agents swap sides at a crossing in which only one fits",
    "navigation": "agents with range sensors reach goals of their own without colliding",
    "passage": "five agents in a cross pass a wall through narrow openings and form it again",
    "reverse_transport": "agents inside a hollow package push it to a goal",
    "road_traffic": "cars follow the lanes of a road map without colliding",
    "sampling": "agents share out a field to sample where it is worth most",
    "transport": "agents push heavy packages to a goal",
    "wheel": "agents turn a heavy line about its middle at a wanted speed",
    "wind_flocking": "two agents of different size fly in the wind in a formation that shields",
    "simple": "one agent goes to a landmark",
    "simple_adversary": "two agents hide their goal landmark from an adversary",
    "simple_crypto": "alice sends bob a secret that eve must not read",
    "simple_push": "an adversary keeps an agent from its landmark",
    "simple_reference": "two agents tell each other where to go",
    "simple_speaker_listener": "a speaker names the landmark that a listener must reach",
    "simple_spread": "agents cover landmarks without colliding",
    "simple_tag": "slow adversaries chase a fast agent",
    "simple_world_comm": "a lead adversary directs the chase, with food and forests",
}
"""The scenarios of VMAS 1.5.2, batched on the device; its extra is `vmas`."""

FORMS: dict[str, str] = {
    "gymnasium/NAME": "any registered Gymnasium environment, as one agent",
    "package.module:factory": "a factory in an importable module, found from the working directory too",
    "path/to/file.py:factory": "a factory in a file",
}

MODULES: dict[str, str] = {"mpe2": "mpe2", "magent2": "magent2.environments"}
"""Where the modules of a family are; those of the others are in pettingzoo.FAMILY."""

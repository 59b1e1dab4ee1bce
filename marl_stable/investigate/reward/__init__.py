"""Is it the reward? What a reward's terms are, who can move them, and what they pay for, before anything is trained."""

"""The paper's user study: a blind page for evaluators, and the tally of what they chose."""

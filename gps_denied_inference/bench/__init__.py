"""Speed and agreement beside the authors' own code, in one run on the same frames and cores."""

"""A person in the loop: which images to ask about, and a page on which their boxes are corrected."""

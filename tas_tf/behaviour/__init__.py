"""How teacher and student behave on the test set: what they confuse, where they disagree, how sure they are."""

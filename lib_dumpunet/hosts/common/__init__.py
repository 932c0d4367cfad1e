"""What hosts have in common, whichever program samples."""

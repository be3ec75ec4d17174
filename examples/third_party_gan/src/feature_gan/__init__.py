"""DMD2's GAN loss for cldistill: a head on the critic's features tells targets from the student's samples."""

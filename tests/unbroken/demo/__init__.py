"""What applications show themselves with: sample data, and the story of a training that is killed."""

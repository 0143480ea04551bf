"""What is done with a whole workspace now and then: figures, vacuum."""

"""The commands about SageMaker jobs that users of the original study know; they are read-only."""

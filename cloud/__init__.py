"""Other people's machines: Ray clusters and SageMaker, behind the same three verbs as this machine."""

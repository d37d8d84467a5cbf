"""The SageMaker backend: packs as managed training jobs that are retried until done."""

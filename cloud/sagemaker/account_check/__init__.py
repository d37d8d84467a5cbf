"""The check of an AWS account before the first job: credentials, role, bucket, permissions, quotas, image."""

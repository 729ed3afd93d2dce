# The bucket of one federation, and an identity for each member. `terraform apply -var bucket=… -var 'sites=["north","south"]'`.
# The policies are files of their own: the tests run the same ones on a real S3 server.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80"
    }
  }
}

provider "aws" {
  region = var.region
}

module "policies" {
  source  = "./policies"
  bucket  = var.bucket
  sites   = var.sites
  regions = var.regions
}

resource "aws_s3_bucket" "federation" {
  bucket              = var.bucket
  object_lock_enabled = true
}

resource "aws_s3_bucket_versioning" "federation" {
  bucket = aws_s3_bucket.federation.id
  versioning_configuration {
    status = "Enabled"
  }
}

# What was written stays for this long, whoever asks to delete it. A commit is worth nothing without what it names.
resource "aws_s3_bucket_object_lock_configuration" "federation" {
  bucket = aws_s3_bucket_versioning.federation.bucket
  rule {
    default_retention {
      mode = "GOVERNANCE"
      days = var.retention_days
    }
  }
}

# What is left of large uploads that nobody goes on with. A deadline is at most a week away.
resource "aws_s3_bucket_lifecycle_configuration" "federation" {
  bucket = aws_s3_bucket_versioning.federation.bucket
  rule {
    id     = "unfinished-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 8
    }
  }
}

resource "aws_kms_key" "federation" {
  description         = "objects of ${var.bucket}"
  enable_key_rotation = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "federation" {
  bucket = aws_s3_bucket.federation.id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.federation.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "federation" {
  bucket                  = aws_s3_bucket.federation.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "federation" {
  bucket = aws_s3_bucket.federation.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_policy" "federation" {
  bucket     = aws_s3_bucket.federation.id
  policy     = module.policies.of_bucket
  depends_on = [aws_s3_bucket_public_access_block.federation]
}

# -- one identity for each member and each regional coordinator ---------------------------------------------------------

resource "aws_iam_user" "member" {
  for_each = module.policies.of_members
  name     = "${var.bucket}-${each.key}"
}

resource "aws_iam_user_policy" "member" {
  for_each = module.policies.of_members
  name     = "objects"
  user     = aws_iam_user.member[each.key].name
  policy   = each.value
}

# Everything in the bucket is encrypted under one key of its own: who may read or write objects needs it.
resource "aws_iam_user_policy" "key" {
  for_each = module.policies.of_members
  name     = "key"
  user     = aws_iam_user.member[each.key].name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource = [aws_kms_key.federation.arn]
    }]
  })
}

resource "aws_iam_access_key" "member" {
  for_each = module.policies.of_members
  user     = aws_iam_user.member[each.key].name
}

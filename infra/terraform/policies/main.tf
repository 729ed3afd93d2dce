# Who may do what in the bucket. No provider: it can be evaluated anywhere.

variable "bucket" {
  type = string
}

variable "sites" {
  type = set(string)
}

variable "regions" {
  type    = map(set(string))
  default = {}
}

locals {
  # What a regional coordinator reads: what sites read, its members' answers, and its own sums.
  of_regions = { for region, members in var.regions : region => concat(
    ["federations/*", "log/*", "models/*", "runs/*"], [for site in members : "sites/${site}/*"], ["regions/${region}/*"],
  ) }
}

output "of_bucket" {
  value = templatefile("${path.module}/bucket.json.tftpl", { bucket = var.bucket })
}

output "of_members" {
  value = merge(
    { coordinator = templatefile("${path.module}/coordinator.json.tftpl", { bucket = var.bucket }) },
    { for site in var.sites : site => templatefile("${path.module}/site.json.tftpl", { bucket = var.bucket, site = site }) },
    { for region, prefixes in local.of_regions : region => templatefile("${path.module}/region.json.tftpl", {
      bucket   = var.bucket
      region   = region
      objects  = jsonencode([for prefix in prefixes : "arn:aws:s3:::${var.bucket}/${prefix}"])
      prefixes = jsonencode(prefixes)
    }) },
  )
}

# Who may do what in the bucket. No provider: it can be evaluated anywhere.

variable "bucket" {
  type = string
}

variable "sites" {
  type = set(string)
}

output "of_bucket" {
  value = templatefile("${path.module}/bucket.json.tftpl", { bucket = var.bucket })
}

output "of_members" {
  value = merge(
    { coordinator = templatefile("${path.module}/coordinator.json.tftpl", { bucket = var.bucket }) },
    { for site in var.sites : site => templatefile("${path.module}/site.json.tftpl", { bucket = var.bucket, site = site }) },
  )
}

output "credentials" {
  description = "By member: what goes into keys/s3.toml, or into `fedround federation invite --access-key`."
  sensitive   = true
  value = {
    for name, key in aws_iam_access_key.member : name => { access_key = key.id, secret_key = key.secret }
  }
}

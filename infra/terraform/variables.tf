variable "bucket" {
  description = "The bucket's name. It is for this federation alone."
  type        = string
}

variable "sites" {
  description = "The members' names, as in the federation file."
  type        = set(string)
  validation {
    condition     = alltrue([for site in var.sites : can(regex("^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", site)) && site != "coordinator"])
    error_message = "A site's name has at most 40 lower-case letters, digits and inner hyphens, and is not 'coordinator'."
  }
}

variable "regions" {
  description = "Regional coordinators, and whose updates each adds up: { hills = [\"north\", \"south\"] }. None if there are none."
  type        = map(set(string))
  default     = {}
  validation {
    condition     = alltrue([for region, members in var.regions : can(regex("^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", region)) && region != "coordinator" && !contains(var.sites, region) && length(setsubtract(members, var.sites)) == 0])
    error_message = "A region's name is like a site's and no site's, and its members are among the sites."
  }
}

variable "region" {
  description = "AWS's own: where the bucket is."
  type        = string
  default     = "eu-central-1"
}

variable "retention_days" {
  description = "How long nothing that was written can be deleted."
  type        = number
  default     = 365
}

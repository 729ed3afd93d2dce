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

variable "region" {
  type    = string
  default = "eu-central-1"
}

variable "retention_days" {
  description = "How long nothing that was written can be deleted."
  type        = number
  default     = 365
}

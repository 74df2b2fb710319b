variable "iot_url" {
  description = "The local AWS IoT Core's API, such as http://localhost:8001. AWS when null."
  type        = string
  default     = null

  validation {
    condition     = var.iot_url == null || can(regex("^https?://[^/]+$", var.iot_url))
    error_message = "iot_url must be like http://localhost:8001, without a path."
  }
}

variable "region" {
  description = "AWS Region."
  type        = string
  default     = "us-east-1"
}

variable "serial_number_prefix" {
  description = "What the devices' serial numbers begin with; they are the certificates' common names."
  type        = string
  default     = "terraform-"

  validation {
    condition     = can(regex("^[A-Za-z0-9:_-]{1,100}$", var.serial_number_prefix))
    error_message = "serial_number_prefix must be 1 to 100 of A-Z a-z 0-9 : _ -."
  }
}

variable "key_algorithm" {
  description = "Keys of devices and CAs: RSA (2048 bits) or ECDSA (P-256)."
  type        = string
  default     = "RSA"

  validation {
    condition     = contains(["RSA", "ECDSA"], var.key_algorithm)
    error_message = "key_algorithm must be RSA or ECDSA."
  }
}

variable "validity_hours" {
  description = "How long the certificates are valid."
  type        = number
  default     = 240

  validation {
    condition     = var.validity_hours >= 1 && var.validity_hours <= 8760
    error_message = "validity_hours must be from 1 to 8760: nothing that was made for a test should outlive a year."
  }
}

variable "register" {
  description = "Whether the device certificates are added to AWS IoT here. Turn it off to register them through the certificate vending machine."
  type        = bool
  default     = true
}

variable "register_ca" {
  description = "Whether the CA is registered with AWS IoT, which then checks what it signed."
  type        = bool
  default     = false
}

variable "auto_registration" {
  description = "Whether AWS IoT registers what the CA signed when it first connects (JITR); with register_ca."
  type        = bool
  default     = false

  validation {
    condition     = !var.auto_registration || var.register_ca
    error_message = "auto_registration is of no use without register_ca."
  }
}

variable "policy_name" {
  description = "Policy of AWS IoT that the registered certificates get, each with a thing, so that they can connect. None when null."
  type        = string
  default     = null
}

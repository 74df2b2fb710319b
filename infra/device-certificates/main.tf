# Device certificates for TESTS AND PROOFS OF CONCEPT, in the three ways of "How to generate IoT Core certificates with Terraform":
# self-signed (self-signed.tf), signed by a CA of one's own (ca-signed.tf), and signed by another CA that calls itself the same
# (same-subject.tf), which is what a check of names would let pass.
#
# NEVER FOR REAL DEVICES: all private keys, the CA's too, stand in the Terraform state in the clear. `sensitive` hides them on the screen
# only; keep the state where you would keep the keys, and destroy it after use. A real device makes its key where nobody can read it and
# sends a CSR.
#
# On the local AWS IoT Core (npm start):     terraform apply -var iot_url=http://localhost:8001
# On AWS, with the account of the shell:     terraform apply
# Who signed whom:
#   terraform output -raw ca_pem > ca.pem; terraform output -raw ca_signed_pem > device.pem; terraform output -raw impostor_pem > impostor.pem
#   openssl verify -CAfile ca.pem device.pem      # OK
#   openssl verify -CAfile ca.pem impostor.pem    # error 20: its issuer only has the same name

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
    tls = {
      source  = "hashicorp/tls"
      version = "~> 4.0"
    }
  }
}

provider "aws" {
  region = var.region

  # The local AWS IoT Core takes any credentials, and there is no other AWS to ask about them.
  access_key                  = var.iot_url == null ? null : "any"
  secret_key                  = var.iot_url == null ? null : "key"
  skip_credentials_validation = var.iot_url != null
  skip_metadata_api_check     = var.iot_url != null
  skip_requesting_account_id  = var.iot_url != null

  dynamic "endpoints" {
    for_each = var.iot_url == null ? [] : [var.iot_url]
    content {
      iot = endpoints.value
    }
  }
}

locals {
  ecdsa_curve = var.key_algorithm == "ECDSA" ? "P256" : null
  rsa_bits    = var.key_algorithm == "RSA" ? 2048 : null

  registered = !var.register ? {} : {
    self_signed = { serial_number = local.self_signed_serial_number, arn = aws_iot_certificate.self_signed[0].arn }
    ca_signed   = { serial_number = local.ca_signed_serial_number, arn = aws_iot_certificate.ca_signed[0].arn }
  }
  connecting = var.policy_name == null ? {} : local.registered
}

# What a device needs beside its certificate to connect: a thing of its name, and a policy.

resource "aws_iot_thing" "this" {
  for_each = local.connecting
  name     = each.value.serial_number
}

resource "aws_iot_thing_principal_attachment" "this" {
  for_each  = local.connecting
  thing     = aws_iot_thing.this[each.key].name
  principal = each.value.arn
}

resource "aws_iot_policy_attachment" "this" {
  for_each = local.connecting
  policy   = var.policy_name
  target   = each.value.arn
}

terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

variable "url" {}
variable "site" { default = "s1" }
variable "action" { default = "iot:Connect" }
variable "types" { default = 1 }

provider "aws" {
  region                      = "us-east-1"
  access_key                  = "any"
  secret_key                  = "key"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
  endpoints { iot = var.url }
}

data "aws_iot_registration_code" "this" {}
output "registration_code" { value = data.aws_iot_registration_code.this.registration_code }

data "aws_iot_endpoint" "this" { endpoint_type = "iot:Data-ATS" }
output "endpoint" { value = data.aws_iot_endpoint.this.endpoint_address }

resource "aws_iot_thing_type" "plain" {
  count = var.types
  name  = "Plain"
}
resource "aws_iot_thing_type" "full" {
  count = var.types
  name  = "Full"
  properties {
    description           = "all there is"
    searchable_attributes = ["site"]
  }
  tags = { line = "1" }
}

resource "aws_iot_thing" "this" {
  name       = "dev-1"
  attributes = { site = var.site }
}

resource "aws_iot_thing_group" "root" { name = "root" }
resource "aws_iot_thing_group" "below" {
  name              = "below"
  parent_group_name = aws_iot_thing_group.root.name
  properties {
    description = "all there is"
    attribute_payload { attributes = { site = var.site } }
  }
  tags = { line = "1" }
}
resource "aws_iot_thing_group_membership" "this" {
  thing_name       = aws_iot_thing.this.name
  thing_group_name = aws_iot_thing_group.below.name
}

resource "aws_iot_policy" "this" {
  name = "terraform"
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = var.action, Resource = "*" }]
  })
  tags = { line = "1" }
}

resource "aws_iot_certificate" "generated" { active = false }
resource "aws_iot_certificate" "csr" {
  csr    = file("device.csr")
  active = true
}
resource "aws_iot_certificate" "alone" {
  certificate_pem = file("alone.pem")
  active          = true
}
resource "aws_iot_certificate" "of_ca" {
  certificate_pem = file("device.pem")
  ca_pem          = file("ca.pem")
  active          = true
  depends_on      = [aws_iot_ca_certificate.proven]
}

resource "aws_iot_ca_certificate" "proven" {
  active                       = true
  ca_certificate_pem           = file("ca.pem")
  verification_certificate_pem = file("verification.pem")
  allow_auto_registration      = true
}
resource "aws_iot_ca_certificate" "sni" {
  active                  = true
  ca_certificate_pem      = file("sni.pem")
  certificate_mode        = "SNI_ONLY"
  allow_auto_registration = false
}

resource "aws_iot_policy_attachment" "this" {
  policy = aws_iot_policy.this.name
  target = aws_iot_certificate.csr.arn
}
resource "aws_iot_thing_principal_attachment" "this" {
  thing     = aws_iot_thing.this.name
  principal = aws_iot_certificate.csr.arn
}

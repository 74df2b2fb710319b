# Anyone can make a CA that calls itself like the manufacturer's, and sign a certificate that calls itself like a device: issuer and
# subject are the same to the letter, the signature is not. It is registered nowhere; give it to whatever should refuse it.

resource "tls_private_key" "impostor_ca" {
  algorithm   = var.key_algorithm
  rsa_bits    = local.rsa_bits
  ecdsa_curve = local.ecdsa_curve
}

resource "tls_self_signed_cert" "impostor_ca" {
  private_key_pem       = tls_private_key.impostor_ca.private_key_pem
  validity_period_hours = var.validity_hours
  is_ca_certificate     = true
  allowed_uses          = ["cert_signing", "crl_signing"]

  subject {
    organization = local.ca_subject
  }
}

resource "tls_private_key" "impostor" {
  algorithm   = var.key_algorithm
  rsa_bits    = local.rsa_bits
  ecdsa_curve = local.ecdsa_curve
}

resource "tls_cert_request" "impostor" {
  private_key_pem = tls_private_key.impostor.private_key_pem

  subject {
    common_name  = local.ca_signed_serial_number
    organization = "CA test"
  }
}

resource "tls_locally_signed_cert" "impostor" {
  cert_request_pem      = tls_cert_request.impostor.cert_request_pem
  ca_private_key_pem    = tls_private_key.impostor_ca.private_key_pem
  ca_cert_pem           = tls_self_signed_cert.impostor_ca.cert_pem
  validity_period_hours = var.validity_hours
  allowed_uses          = ["digital_signature", "client_auth"]
}

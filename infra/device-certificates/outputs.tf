# Certificates are public; keys are not. `terraform output -raw name` prints either.

output "self_signed_pem" {
  description = "The self-signed device certificate."
  value       = tls_self_signed_cert.self_signed.cert_pem
}

output "self_signed_key" {
  description = "Its private key."
  value       = tls_private_key.self_signed.private_key_pem
  sensitive   = true
}

output "ca_pem" {
  description = "The CA's certificate."
  value       = tls_self_signed_cert.ca.cert_pem
}

output "ca_key" {
  description = "The CA's private key."
  value       = tls_private_key.ca.private_key_pem
  sensitive   = true
}

output "ca_signed_pem" {
  description = "The device certificate that the CA signed."
  value       = tls_locally_signed_cert.ca_signed.cert_pem
}

output "ca_signed_key" {
  description = "Its private key."
  value       = tls_private_key.ca_signed.private_key_pem
  sensitive   = true
}

output "impostor_ca_pem" {
  description = "Another CA's certificate with the same subject."
  value       = tls_self_signed_cert.impostor_ca.cert_pem
}

output "impostor_pem" {
  description = "A certificate with the same issuer and subject as ca_signed_pem, signed by that other CA."
  value       = tls_locally_signed_cert.impostor.cert_pem
}

output "impostor_key" {
  description = "Its private key."
  value       = tls_private_key.impostor.private_key_pem
  sensitive   = true
}

output "serial_numbers" {
  description = "The devices' serial numbers."
  value       = { self_signed = local.self_signed_serial_number, ca_signed = local.ca_signed_serial_number }
}

output "certificate_arns" {
  description = "What was added to AWS IoT."
  value       = { for name, each in local.registered : name => each.arn }
}

output "url" {
  description = "Where devices and people reach the service."
  value       = "https://${coalesce(var.hostname, aws_lb.this.dns_name)}"
}

output "mtls_url" {
  description = "Where clients with certificates reach it (EST); null without mtls_port."
  value       = var.mtls_port == null ? null : "https://${coalesce(var.hostname, aws_lb.this.dns_name)}:${var.mtls_port}"
}

output "load_balancer" {
  description = "Where hostname must point to, where DNS is yours."
  value       = { dns_name = aws_lb.this.dns_name, zone_id = aws_lb.this.zone_id }
}

output "nat_addresses" {
  description = "Addresses that the tasks call from, for the allow-list of an identity provider; empty in a VPC of yours."
  value       = aws_eip.nat[*].public_ip
}

output "service" {
  description = "ECS cluster and service, for deploys and for looking in."
  value       = { cluster = aws_ecs_cluster.this.name, service = aws_ecs_service.this.name, security_group_id = aws_security_group.tasks.id }
}

output "log_group" {
  description = "CloudWatch log group of the service, audit records among its lines."
  value       = aws_cloudwatch_log_group.this.name
}

output "access_log_bucket" {
  description = "Bucket of the load balancer's access logs."
  value       = aws_s3_bucket.access_logs.bucket
}

output "tables" {
  description = "ARNs of the tables."
  value       = { devices = aws_dynamodb_table.devices.arn, rate_limits = aws_dynamodb_table.rate_limits.arn }
}

output "roles" {
  description = "ARNs of the roles of the service and of ECS on its behalf."
  value       = { task = aws_iam_role.task.arn, execution = aws_iam_role.execution.arn }
}

output "device_policy" {
  description = "AWS IoT policy that certificates get."
  value       = aws_iot_policy.device.name
}

output "jitr_dead_letters" {
  description = "Queue of registration events that did not reach the service; null without JITR."
  value       = one(aws_sqs_queue.jitr_dead_letters[*].url)
}

output "alarms" {
  description = "Names of the alarms."
  value = sort(concat(
    values(aws_cloudwatch_metric_alarm.single)[*].alarm_name,
    values(aws_cloudwatch_metric_alarm.table)[*].alarm_name,
    [aws_cloudwatch_metric_alarm.tasks.alarm_name, aws_cloudwatch_metric_alarm.errors.alarm_name],
  ))
}

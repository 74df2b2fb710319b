# CloudWatch's view from outside. What the service itself knows (quota, backlog, drift by kind) is among its Prometheus metrics.

locals {
  balancer_dimensions = { LoadBalancer = aws_lb.this.arn_suffix }
  target_dimensions   = merge(local.balancer_dimensions, { TargetGroup = aws_lb_target_group.this.arn_suffix })

  # Each is about one metric: more than so much of it, for so many minutes.
  alarms = merge(
    {
      balancer-errors = {
        says       = "The load balancer answers 5xx itself: no task serves, or connections to them break."
        namespace  = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", dimensions = local.balancer_dimensions
        statistic  = "Sum", above = 5, minutes = 5
        no_data_is = "notBreaching"
      }
      unhealthy-tasks = {
        says       = "A task is not ready: see its log and /readyz."
        namespace  = "AWS/ApplicationELB", metric = "UnHealthyHostCount", dimensions = local.target_dimensions
        statistic  = "Maximum", above = 0, minutes = 5
        no_data_is = "notBreaching"
      }
      latency = {
        says       = "One answer in a hundred begins after 10 seconds: see the metrics of calls to AWS."
        namespace  = "AWS/ApplicationELB", metric = "TargetResponseTime", dimensions = local.target_dimensions
        statistic  = "p99", above = 10, minutes = 15
        no_data_is = "notBreaching"
      }
      drift = {
        says       = "The registry and AWS IoT differ about a certificate: see the audit records drift-found."
        namespace  = local.log_metrics, metric = "DriftFound", dimensions = {}
        statistic  = "Sum", above = 0, minutes = 5
        no_data_is = "notBreaching"
      }
    },
    var.secret_arns.jitr == null ? {} : {
      jitr-dead-letters = {
        says       = "A registration event did not reach the service and waits in the dead letters. Its device connects again by itself."
        namespace  = "AWS/SQS", metric = "ApproximateAgeOfOldestMessage", dimensions = { QueueName = aws_sqs_queue.jitr_dead_letters[0].name }
        statistic  = "Maximum", above = 0, minutes = 5
        no_data_is = "notBreaching"
      }
      jitr-throttled = {
        says       = "AWS IoT throttles the rule for registration events."
        namespace  = "AWS/IoT", metric = "RuleMessageThrottled", dimensions = { RuleName = local.jitr_rule }
        statistic  = "Sum", above = 0, minutes = 5
        no_data_is = "notBreaching"
      }
    },
  )

  log_metrics = "CertificateVendingMachine/${var.name}"

  tables           = { devices = aws_dynamodb_table.devices.name, rate-limits = aws_dynamodb_table.rate_limits.name }
  table_operations = ["GetItem", "Query", "UpdateItem"]
}

resource "aws_cloudwatch_metric_alarm" "single" {
  for_each            = local.alarms
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.says
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = startswith(each.value.statistic, "p") ? null : each.value.statistic
  extended_statistic  = startswith(each.value.statistic, "p") ? each.value.statistic : null
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.above
  period              = 60 * each.value.minutes
  evaluation_periods  = 1
  treat_missing_data  = each.value.no_data_is
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
}

# No data is the worst of it: nothing runs.
resource "aws_cloudwatch_metric_alarm" "tasks" {
  alarm_name          = "${var.name}-tasks"
  alarm_description   = "Fewer tasks run than min_tasks: see the service's events in ECS."
  namespace           = "ECS/ContainerInsights"
  metric_name         = "RunningTaskCount"
  dimensions          = { ClusterName = aws_ecs_cluster.this.name, ServiceName = aws_ecs_service.this.name }
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = var.min_tasks
  period              = 60
  evaluation_periods  = 5
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
}

# A part of the answers, so that one failure at night wakes nobody.
resource "aws_cloudwatch_metric_alarm" "errors" {
  alarm_name          = "${var.name}-errors"
  alarm_description   = "More than 5 % of answers are 5xx: see the service's log by request id."
  comparison_operator = "GreaterThanThreshold"
  threshold           = 5
  evaluation_periods  = 2
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns

  metric_query {
    id          = "percent"
    label       = "5xx in percent"
    expression  = "IF(requests > 20, 100 * errors / requests, 0)"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { errors = "HTTPCode_Target_5XX_Count", requests = "RequestCount" }
    content {
      id = metric_query.key
      metric {
        namespace   = "AWS/ApplicationELB"
        metric_name = metric_query.value
        dimensions  = local.target_dimensions
        period      = 300
        stat        = "Sum"
      }
    }
  }
}

# DynamoDB counts these by operation only.
resource "aws_cloudwatch_metric_alarm" "table" {
  for_each            = { for pair in setproduct(keys(local.tables), ["ThrottledRequests", "SystemErrors"]) : join("-", pair) => { table = pair[0], metric = pair[1] } }
  alarm_name          = "${var.name}-${each.value.table}-${each.value.metric == "SystemErrors" ? "errors" : "throttled"}"
  alarm_description   = "DynamoDB ${each.value.metric == "SystemErrors" ? "fails" : "throttles"} requests to the table ${local.tables[each.value.table]}."
  comparison_operator = "GreaterThanThreshold"
  threshold           = 5
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns

  metric_query {
    id          = "sum"
    label       = each.value.metric
    expression  = "SUM(METRICS())"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = toset(local.table_operations)
    content {
      id = lower(metric_query.key)
      metric {
        namespace   = "AWS/DynamoDB"
        metric_name = each.value.metric
        dimensions  = { TableName = local.tables[each.value.table], Operation = metric_query.key }
        period      = 300
        stat        = "Sum"
      }
    }
  }
}

resource "aws_cloudwatch_log_metric_filter" "drift" {
  name           = "${var.name}-drift"
  log_group_name = aws_cloudwatch_log_group.this.name
  pattern        = "{ $.audit.event = \"drift-found\" }"

  metric_transformation {
    namespace     = local.log_metrics
    name          = "DriftFound"
    value         = "1"
    default_value = "0"
  }
}

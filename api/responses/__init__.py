"""OpenAI's Responses API: the same jobs in its shapes.

body, items      what comes over the wire
turns, past      input items as the messages of a job, behind those of an earlier response
order            a body becomes an order for a job
door             what a job keeps of its body, to be shown as it was asked for
output, events   output items and stream events: functions of the job's log
object           the Response object
routes           the endpoints
"""

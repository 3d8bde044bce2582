"""The health addresses."""

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from marketdata import __version__
from marketdata.health import check_parts, is_ready


@csrf_exempt
@require_safe
def livez(request: HttpRequest) -> JsonResponse:
    """Answer: the process is alive, and of which version it is."""
    return JsonResponse({"status": "alive", "version": __version__})


@csrf_exempt
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Answer 200 where stored prices can be served, else 503; each part by name."""
    parts = check_parts()
    ready = is_ready(parts)
    degraded = any(part.problem for part in parts)
    status = "unavailable" if not ready else "degraded" if degraded else "ready"
    body = {"status": status, "parts": {part.name: part.problem or "ok" for part in parts}}
    return JsonResponse(body, status=200 if ready else 503)

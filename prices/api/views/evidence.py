"""Where a price came from: raw answers."""

from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from prices.api import responses as answers
from prices.api.renderers import json_response
from prices.api.schema import evidence as schema
from prices.api.schema.common import problems
from prices.api.serializers import NoQuery, validated
from prices.history.raw_answers import read_answer


class RawAnswerView(APIView):
    """GET /raw/{raw_response_id}."""

    @extend_schema(
        operation_id="raw_answer",
        parameters=[OpenApiParameter("raw_response_id", UUID, OpenApiParameter.PATH)],
        responses={200: schema.RawAnswerWithBody, **problems(400, 404, 410)},
    )
    def get(self, request: Request, raw_response_id: str) -> HttpResponse:
        """Return what a provider answered, as it came but for keys, which are taken out before it is stored.

        Raw answers are dropped after days. 410 says that none is kept of the time that the id tells, 404 that
        there is none though others of its time are kept.
        """
        validated(NoQuery, request.query_params)
        return json_response(answers.raw_answer_with_body(read_answer(UUID(raw_response_id))))

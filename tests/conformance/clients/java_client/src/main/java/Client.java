// Pushes with prometheus-metrics-exporter-pushgateway, in protobuf and in text. Usage: Client HOST:PORT

import io.prometheus.metrics.core.metrics.Counter;
import io.prometheus.metrics.core.metrics.Gauge;
import io.prometheus.metrics.core.metrics.Histogram;
import io.prometheus.metrics.core.metrics.Summary;
import io.prometheus.metrics.exporter.pushgateway.Format;
import io.prometheus.metrics.exporter.pushgateway.PushGateway;
import io.prometheus.metrics.model.registry.PrometheusRegistry;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

public class Client {
  // The grouping key in a scrape. The library encodes a space as a plus sign, and gateways keep the plus sign.
  static final String GROUP =
      "instance=\"\",job=\"java/job\",none=\"\",path=\"/var/tmp\",text=\"größe+1\"";

  static String gateway;

  static String scrape() throws Exception {
    var request = HttpRequest.newBuilder(URI.create("http://" + gateway + "/metrics")).build();
    return HttpClient.newHttpClient().send(request, BodyHandlers.ofString()).body();
  }

  static void want(String... lines) throws Exception {
    String text = scrape();
    for (String line : lines) {
      if (text.lines().noneMatch(line::equals)) {
        String pushed = String.join("\n", text.lines().filter(l -> l.contains("java_")).toList());
        throw new AssertionError("missing " + line + " in\n" + pushed);
      }
    }
  }

  static void wantNone(String name) throws Exception {
    for (int i = 0; scrape().contains(name); i++) {
      if (i == 50) {
        throw new AssertionError(name + " is still there");
      }
      Thread.sleep(10);
    }
  }

  static void check(Format format) throws Exception {
    var registry = new PrometheusRegistry();
    var done = Counter.builder().name("java_done_total").help("Done.").register(registry);
    var state = Gauge.builder().name("java_state").help("State.").labelNames("x").register(registry);
    var sizes =
        Histogram.builder().name("java_sizes").help("Sizes.").classicUpperBounds(1, 5).register(registry);
    var times = Summary.builder().name("java_times").help("Times.").quantile(0.5, 0.01).register(registry);
    done.inc();
    state.labelValues("a\"b\\c\nd").set(-0.5);
    sizes.observe(2);
    times.observe(2);

    var gateway =
        PushGateway.builder()
            .address(Client.gateway)
            .job("java/job")
            .groupingKey("path", "/var/tmp")
            .groupingKey("none", "")
            .groupingKey("text", "größe 1")
            .format(format)
            .registry(registry)
            .build();
    gateway.push();
    want(
        "# HELP java_sizes Sizes.",
        "# TYPE java_sizes histogram",
        "java_done_total{" + GROUP + "} 1",
        "java_state{" + GROUP + ",x=\"a\\\"b\\\\c\\nd\"} -0.5",
        "java_sizes_bucket{" + GROUP + ",le=\"5\"} 1",
        "java_sizes_count{" + GROUP + "} 1",
        "java_times{" + GROUP + ",quantile=\"0.5\"} 2",
        "java_times_count{" + GROUP + "} 1");
    done.inc();
    gateway.pushAdd(done);
    want("java_done_total{" + GROUP + "} 2", "java_sizes_count{" + GROUP + "} 1");
    gateway.push(done);
    wantNone("java_sizes");
    want("java_done_total{" + GROUP + "} 2");
    gateway.delete();
    wantNone("java_done_total");
  }

  public static void main(String[] arguments) throws Exception {
    gateway = arguments[0];
    check(Format.PROMETHEUS_PROTOBUF);
    check(Format.PROMETHEUS_TEXT);
    System.out.println("java client: ok");
  }
}

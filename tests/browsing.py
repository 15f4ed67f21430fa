"""Pages in headless Chromium: see the fixture ``browser``."""


def css(driver, selector):
    return driver.find_elements("css selector", selector)


def resize(driver, width, scheme="light", height=900):
    """A window of this width, on a phone below 500, in a light or a dark room."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
